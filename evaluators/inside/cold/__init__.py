"""Programs for the interpreters of images that run no warm worker: they record outcomes in the tests' own process."""
