"""What a test executes, reads and reaches for, recorded inside the sandbox."""
