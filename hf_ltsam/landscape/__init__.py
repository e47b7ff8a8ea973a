"""G(a, eps): the gradient of weighted losses at an offset, and everything that makes it cheap."""
