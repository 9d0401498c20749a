"""Attribution of a reward to the hunks of a patch, and the smallest part of a patch that passes."""
