"""Records as people and programs see them: which columns and fields there are."""
