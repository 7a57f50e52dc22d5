"""What shows in a record: every function looks for one thing, and yields what it finds."""
