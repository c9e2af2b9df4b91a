"""Small helpers that know nothing of Kafka: arguments, names, codes, texts, time, threads."""
