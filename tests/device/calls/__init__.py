"""The rows of the device table, by room; importing this registers them."""




