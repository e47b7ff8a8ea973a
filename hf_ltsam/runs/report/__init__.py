"""`ltsam report`: what runs reached, how and at what cost, as one page made from saved JSON alone."""
