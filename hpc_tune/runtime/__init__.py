"""What runs inside the allocation, or on this machine: the only part that imports Ray."""
