"""What a user asks for: the recipe, its pictures, labels and input normalisation."""
