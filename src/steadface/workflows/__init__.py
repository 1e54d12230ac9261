"""What one does with Steadface, a use case a file: the command line, Python and a service call these and print."""
