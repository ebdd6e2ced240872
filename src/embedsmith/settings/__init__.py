"""Every setting, typed; recipes and command lines -> settings; families; prompts."""
