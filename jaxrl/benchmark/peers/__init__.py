"""What a user would run instead of jaxrl: scripts of their own, so that any Python may run them."""
