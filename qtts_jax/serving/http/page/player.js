// Plays samples as they arrive, in the browser's audio thread.
//
// Messages in: {samples: Float32Array} in order, then {end: true}.
// Messages out: {played, silent, ended}, samples so far: of the speech, and of silence in gaps.

class Player extends AudioWorkletProcessor {
  constructor({processorOptions: {prebuffer}}) {
    super();
    this.prebuffer = prebuffer;  // samples that must be there before the first is played
    this.queue = [];
    this.offset = 0;  // into the first block of the queue
    this.buffered = this.played = this.silent = 0;
    this.started = this.complete = false;
    this.reportAt = 0;
    this.port.onmessage = ({data}) => {
      if (data.end) {
        this.complete = true;
      } else {
        this.queue.push(data.samples);
        this.buffered += data.samples.length;
      }
    };
  }

  process(_, [[output]]) {
    this.started ||= this.complete || this.buffered >= this.prebuffer;
    if (!this.started) return true;
    const filled = this.fill(output);
    const ended = this.complete && !this.queue.length;
    if (!ended) this.silent += output.length - filled;
    if (ended || this.played >= this.reportAt) {
      this.port.postMessage({played: this.played, silent: this.silent, ended});
      this.reportAt = this.played + sampleRate / 20;
    }
    return !ended;
  }

  /** Copies what is there into the output, which holds zeros, and returns how many samples. */
  fill(output) {
    let filled = 0;
    while (filled < output.length && this.queue.length) {
      const block = this.queue[0];
      const part = block.subarray(this.offset, this.offset + output.length - filled);
      output.set(part, filled);
      filled += part.length;
      this.offset += part.length;
      if (this.offset === block.length) {
        this.queue.shift();
        this.offset = 0;
      }
    }
    this.buffered -= filled;
    this.played += filled;
    return filled;
  }
}

registerProcessor("player", Player);
