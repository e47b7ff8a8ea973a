"""Steps of a training: micro-batches in, a method's vector in `p.grad` out, for any loss."""
