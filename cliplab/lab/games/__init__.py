"""Board games for self-play: rules by OpenSpiel, search, matches. Import from the files."""
