// Dubbo's messages, with their Hessian in them, in the codec of dubbo-remoting.
//
//   dubbo.js serve PORT
//   dubbo.js ask CLIENTS CONNECTIONS REQUESTS PORT
//
// `say` has a reply, `noted` too, `note` is called one-way, and before the reply to `stir` the service
// sends two heartbeats. A heartbeat of the client is acknowledged.
'use strict';

const net = require('net');
const dubbo = require('dubbo-remoting');
const Invocation = require('dubbo-remoting/lib/protocol/invocation');
const Request = require('dubbo-remoting/lib/protocol/request');
const storm = require('./storm.js');

const SERVICE = 'pond.Calls';

// The two halves of the codec around a socket.
const codec = socket => {
  const encoder = dubbo.encoder();
  const decoder = dubbo.decoder();
  encoder.pipe(socket).pipe(decoder);
  socket.on('error', () => socket.destroy());
  return { encoder, decoder };
};

const serve = port => {
  const notes = new Map();
  const seen = tag => notes.get(tag) || 0;
  net.createServer(socket => {
    const { encoder, decoder } = codec(socket);
    decoder.on('heartbeat', heartbeat => encoder.writeHeartbeatAck(heartbeat));
    decoder.on('request', request => {
      const { methodName, args: [ text ] } = request.data;
      const reply = value => encoder.writeResponse(request, { isError: false, appResponse: value });
      if (methodName === 'note') {
        notes.set(text, seen(text) + 1);
      } else if (methodName === 'noted') {
        reply(`${seen(text)}`);
      } else {
        if (methodName === 'stir') {
          encoder.writeHeartbeat(1, {});
          encoder.writeHeartbeat(2, {});
        }
        reply(storm.reversed(text));
      }
    });
  }).listen(port, '127.0.0.1');
};

class Client {
  constructor(port) {
    this.socket = net.connect(port, '127.0.0.1');
    Object.assign(this, codec(this.socket));
    this.waiting = new Map();
    this.id = 0;
    this.decoder.on('response', response => this.take(response, response.data.appResponse));
    this.decoder.on('heartbeat_ack', response => this.take(response, 'alive'));
    this.decoder.on('heartbeat', () => this.fail(new Error('a heartbeat that nobody asked for')));
    this.socket.on('close', () => this.fail(new Error('the connection ended')));
  }

  take({ packetId }, value) {
    const waiter = this.waiting.get(packetId);
    if (!waiter) throw new Error(`a reply that nobody waits for: ${packetId}, ${value}`);
    this.waiting.delete(packetId);
    waiter.resolve(value);
  }

  fail(error) {
    for (const waiter of this.waiting.values()) waiter.reject(error);
  }

  reply(id) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no reply to ${id}`)), storm.PATIENCE_MS);
      const settled = settle => value => {
        clearTimeout(timer);
        settle(value);
      };
      this.waiting.set(id, { resolve: settled(resolve), reject: settled(reject) });
    });
  }

  call(methodName, text) {
    const id = this.id += 1;
    this.encoder.writeRequest(id, { serverSignature: `${SERVICE}:1.0.0`, methodName, args: [ text ] });
    return this.reply(id);
  }

  // The codec's own writer knows no one-way requests, its messages do.
  note(tag) {
    const request = new Request(this.id += 1);
    request.isTwoWay = false;
    request.data = new Invocation({ methodName: 'note', args: [ tag ], attachments: { path: SERVICE } });
    this.encoder.write(request.encode());
  }

  heartbeat() {
    const id = this.id += 1;
    this.encoder.writeHeartbeat(id, {});
    return this.reply(id);
  }

  end() {
    this.socket.end();
  }
}

const ask = (clients, connections, requests, port) =>
  storm.rage(Number(clients), Number(connections), async name => {
    const client = new Client(port);
    const told = await talk(client, name, Number(requests));
    client.end();
    return told;
  });

const talk = async (client, name, requests) => {
  let oneway = 0;
  // All are sent at once over the one connection.
  const answers = Array.from({ length: requests }, async (_, request) => {
    const text = `${name}-${request} ${'x'.repeat(request * 173 % 5000)}`;
    if (request % 3 === 0) {
      oneway += 1;
      client.note(name);
    }
    storm.expect(await client.call(request % 5 ? 'say' : 'stir', text), storm.reversed(text));
  });
  answers.push(client.heartbeat().then(value => storm.expect(value, 'alive')));
  await Promise.all(answers);
  // A note and the question for it may take different connections, and overtake each other there.
  let replies = answers.length;
  let noted;
  do {
    noted = Number(await client.call('noted', name));
    replies += 1;
  } while (noted < oneway);
  storm.expect(noted, oneway);
  return { replies, oneway };
};

const [ role, ...args ] = process.argv.slice(2);
role === 'serve' ? serve(...args) : ask(...args);
