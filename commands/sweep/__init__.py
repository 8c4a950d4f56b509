"""sweep: good settings, searched. Read: command → search_space → trial → study → summary."""
