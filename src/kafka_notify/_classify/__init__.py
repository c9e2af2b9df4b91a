"""What a provider's or client library's answer means, as an error."""
