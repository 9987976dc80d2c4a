/** One run after the other, until it is stopped. */

/** Gives the wait until its next run, in ms; never throws. */
export type Run = () => Promise<number>;

/** Runs again and again, never twice at once. */
export class Loop {
    private stopped = false;
    private timer: NodeJS.Timeout | undefined;
    private current: Promise<void> = Promise.resolve();

    constructor(private readonly run: Run) {}

    /** The first run begins at once. */
    start(): void {
        this.schedule(0);
    }

    /** Resolves when the run that is under way has ended; none begins after it. */
    async stop(): Promise<void> {
        this.stopped = true;
        clearTimeout(this.timer);
        await this.current;
    }

    private schedule(delayMs: number): void {
        if (!this.stopped) {
            this.timer = setTimeout(() => {
                this.current = this.run().then(wait => this.schedule(wait));
            }, delayMs);
        }
    }
}
