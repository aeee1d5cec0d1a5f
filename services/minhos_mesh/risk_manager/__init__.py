"""The risk manager: says whether an order may be sent, and owns the limits and the breaker."""
