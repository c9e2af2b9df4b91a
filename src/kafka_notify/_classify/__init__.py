"""The error that a provider's or client library's answer stands for."""
