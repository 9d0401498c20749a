"""Files that hold tasks and patches, in the formats of this project and of the field."""
