// The server and the client of @tars/rpc.
//
//   tars.js serve PORT
//   tars.js ask CLIENTS CONNECTIONS REQUESTS PORT
//
// The servant and its proxy stand here as tars2node writes them for
//
//   interface Calls { string say(string text); int note(string tag); int noted(string tag); };
//
// `note` is called one-way.
'use strict';

const rpc = require('@tars/rpc');
const { TarsInputStream, TarsOutputStream } = require('@tars/stream');
const { Communicator } = require('@tars/rpc/core/client/Communicator.js');
const storm = require('./storm.js');

const SERVANT = 'Pond.Calls.CallsObj';
const ONE_WAY = { packetType: 1 };

class Servant {
  initialize() {
    this.notes = new Map();
  }

  onDispatch(current, name, buffer) {
    const text = new TarsInputStream(buffer).readString(1, true);
    const result = new TarsOutputStream();
    if (name === 'say') {
      result.writeString(0, storm.reversed(text));
    } else if (name === 'note') {
      this.notes.set(text, this.seen(text) + 1);
      result.writeInt32(0, 0);
    } else if (name === 'noted') {
      result.writeInt32(0, this.seen(text));
    } else {
      return rpc.error.SERVER.FUNC_NOT_FOUND;
    }
    // The framework sends it, unless the call is one-way.
    current.doResponse(result.getBinBuffer());
    return rpc.error.SUCCESS;
  }

  seen(tag) {
    return this.notes.get(tag) || 0;
  }
}

class CallsProxy {
  async say(text) {
    return (await this.invoke('say', text)).readString(0, true);
  }

  async noted(tag) {
    return (await this.invoke('noted', tag)).readInt32(0, true);
  }

  async note(tag) {
    try {
      await this.invoke('note', tag, ONE_WAY);
    } catch (told) {
      // A one-way call that was sent is told as an error without a code.
      if (told.error.code) throw told;
    }
  }

  async invoke(name, text, options) {
    const buffer = new TarsOutputStream();
    buffer.writeString(1, text);
    const told = await this._worker.tars_invoke(name, buffer.getBinBuffer(), options);
    return new TarsInputStream(told.response.sBuffer);
  }
}

const serve = port => {
  rpc.server.createServer(Servant).start({
    endpoint: `tcp -h 127.0.0.1 -p ${port} -t 60000`,
    servant: SERVANT,
    protocol: 'tars',
  });
};

const ask = (clients, connections, requests, port) =>
  storm.rage(Number(clients), Number(connections), async name => {
    const communicator = Communicator.New();
    communicator.setProperty('timeout', storm.PATIENCE_MS);
    const proxy = communicator.stringToProxy(CallsProxy, `${SERVANT}@tcp -h 127.0.0.1 -p ${port} -t 60000`);
    const told = await talk(proxy, name, Number(requests));
    // The client closes its connection when the time for a call has passed.
    proxy._worker.timeout = 1;
    communicator.destroy();
    return told;
  });

const talk = async (proxy, name, requests) => {
  let oneway = 0;
  // All are sent at once over the one connection.
  await Promise.all(Array.from({ length: requests }, async (_, request) => {
    const text = `${name}-${request} ${'x'.repeat(request * 173 % 5000)}`;
    if (request % 3 === 0) {
      oneway += 1;
      await proxy.note(name);
    }
    storm.expect(await proxy.say(text), storm.reversed(text));
  }));
  // A note and the question for it may take different connections, and overtake each other there.
  let replies = requests;
  let noted;
  do {
    noted = await proxy.noted(name);
    replies += 1;
  } while (noted < oneway);
  storm.expect(noted, oneway);
  return { replies, oneway };
};

const [ role, ...args ] = process.argv.slice(2);
role === 'serve' ? serve(...args) : ask(...args);
