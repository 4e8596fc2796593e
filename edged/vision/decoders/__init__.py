"""One module for each family of model heads: tensors in, what is seen out."""
