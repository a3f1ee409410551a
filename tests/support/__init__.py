"""What tests share: clocks, networks, programs, and checks that nothing is left behind."""
