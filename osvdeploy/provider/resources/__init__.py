"""The resources, one module each, with the functions that ask for the same thing. None knows another."""
