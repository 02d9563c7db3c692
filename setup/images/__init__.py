"""Images: ours, the tests' and the examples', and stand-ins for the makers' where no registry answers."""
