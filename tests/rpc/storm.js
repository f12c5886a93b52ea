// Many short-lived clients at once, each with a name of its own in all that it asks.
//
// Not here: any protocol.
'use strict';

// Milliseconds until a reply that does not come counts as lost: more than a busy machine needs.
exports.PATIENCE_MS = 15000;

// Lets `converse(name)`, the life of one connection, run for so many clients at a time and so many
// connections of each, one after the other, and says how many replies and one-way calls it told in all.
exports.rage = async (clients, connections, converse) => {
  const sum = { replies: 0, oneway: 0 };
  const live = async client => {
    for (let connection = 0; connection < connections; connection += 1) {
      const told = await converse(`${client}-${connection}`);
      sum.replies += told.replies;
      sum.oneway += told.oneway;
    }
  };
  await Promise.all(Array.from({ length: clients }, (_, client) => live(client)));
  console.error(`${sum.replies} replies, ${sum.oneway} one-way`);
};

// Throws where a reply is not the one that was asked for.
exports.expect = (reply, expected) => {
  if (reply !== expected) {
    throw new Error(`not its own reply: ${reply} for ${expected}`);
  }
};

exports.reversed = text => Array.from(text).reverse().join('');

// Whatever was not foreseen ends the program, and not in order.
process.on('unhandledRejection', error => {
  // What @tars/rpc rejects with is no Error, and holds all of its insides.
  console.error(error.stack || error.error);
  process.exit(1);
});
