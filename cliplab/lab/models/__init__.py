"""The notebooks' models, one file a family."""
