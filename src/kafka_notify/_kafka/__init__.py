"""librdkafka: settings, the producer handle, readers outside a group, and what errors mean."""
