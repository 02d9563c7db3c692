"""What the private API decides, as pure functions: no clock, no database, no network."""
