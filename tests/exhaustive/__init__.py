"""Every interleaving of a few notifications, owners and faults, on the shipped classes."""
