"""What every part rests on: files, images, errors, options, languages and the command line."""
