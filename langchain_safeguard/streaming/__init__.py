"""The output check of a stream: nothing leaves before the text it belongs to was judged."""
