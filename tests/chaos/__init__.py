"""chaos: what happens to a run's work when the world around it breaks? Read: arena → ground → kills → disks → hostile"""
