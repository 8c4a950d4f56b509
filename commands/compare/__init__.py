"""compare: three detectors of one size, side by side. Read: command → one_run → agreement."""
