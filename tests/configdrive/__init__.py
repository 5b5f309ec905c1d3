"""Config drives, and VMs made with them."""
