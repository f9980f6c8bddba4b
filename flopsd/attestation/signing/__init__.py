"""Keys and signatures. Needs the extra `seal`; nothing here is loaded while metering."""
