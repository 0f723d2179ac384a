"""The training loop: what drives it, divides it and shows it."""
