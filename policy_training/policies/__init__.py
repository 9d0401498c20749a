"""What proposes patches: local models, endpoints, commands, recorded predictions, scripted controls."""
