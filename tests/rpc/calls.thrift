// One call with a reply, one of a name of four letters, and one without a reply.
service Calls {
  string say(1: string text),
  string echo(1: string text),
  oneway void note(1: string tag),
  i32 noted(1: string tag),
}
