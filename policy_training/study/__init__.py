"""`regrade study`: curves of what learning from executed tests is worth, over demonstrations and over tested tasks."""
