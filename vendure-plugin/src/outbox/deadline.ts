/**
 * What `work` gives, unless the deadline comes first; a hook that never ends must not hold up every other order.
 *
 * @param name of the hooks, for whoever reads the error
 */
export function before<T>(deadline: AbortSignal, name: string, work: () => T | Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
        const late = () => reject(new Error(`${name} took too long`));
        deadline.addEventListener('abort', late);
        Promise.resolve()
            .then(work)
            .then(resolve, reject)
            .finally(() => deadline.removeEventListener('abort', late));
    });
}
