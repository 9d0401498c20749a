"""Recording inside the sandbox: outcomes of tests, executed functions, opened files, use of the network."""
