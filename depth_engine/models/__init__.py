"""Every network that gives depth, and where its weights come from."""
