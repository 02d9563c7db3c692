"""The doors of the private API: they turn requests into questions to the store, and answers into JSON."""
