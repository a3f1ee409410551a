"""Node servers, schedulers and relays: the headless half of dispy-nb."""
