"""What scripts/test-v4l2 runs inside its virtual machine: v4l2:// cameras on the kernel's virtual camera."""
