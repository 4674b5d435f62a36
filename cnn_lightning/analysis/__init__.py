"""Network and images in, tensors out; every hook lives here."""
