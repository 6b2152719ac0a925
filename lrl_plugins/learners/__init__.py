"""What is trained by itself, without a policy."""
